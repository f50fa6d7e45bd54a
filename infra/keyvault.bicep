// The vault: secrets that app settings refer to, and the newest refresh token, which the app itself writes
// (partner-center-refresh-token). A secret is written here only when its parameter is given.

param name string
param location string
param tags object

@secure()
param partnerCenterClientSecret string
@secure()
param partnerCenterRefreshToken string
@secure()
param dynamics365ClientSecret string
@secure()
param salesforceClientSecret string
@secure()
param salesforcePrivateKey string
@secure()
param webhookUrl string
@secure()
param webhookRelayUrls string

// Without purge protection, which can never be taken back: every secret in here can be issued anew.
resource vault 'Microsoft.KeyVault/vaults@2023-07-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: subscription().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 90
  }
}

resource clientSecret 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!empty(partnerCenterClientSecret)) {
  parent: vault
  name: 'partner-center-client-secret'
  properties: {
    value: partnerCenterClientSecret
  }
}

resource firstRefreshToken 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!empty(partnerCenterRefreshToken)) {
  parent: vault
  name: 'partner-center-first-refresh-token'
  properties: {
    value: partnerCenterRefreshToken
  }
}

resource dynamics365Secret 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!empty(dynamics365ClientSecret)) {
  parent: vault
  name: 'dynamics365-client-secret'
  properties: {
    value: dynamics365ClientSecret
  }
}

resource salesforceSecret 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!empty(salesforceClientSecret)) {
  parent: vault
  name: 'salesforce-client-secret'
  properties: {
    value: salesforceClientSecret
  }
}

resource salesforceKey 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!empty(salesforcePrivateKey)) {
  parent: vault
  name: 'salesforce-private-key'
  properties: {
    value: salesforcePrivateKey
  }
}

resource webhookAddress 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!empty(webhookUrl)) {
  parent: vault
  name: 'webhook-url'
  properties: {
    value: webhookUrl
  }
}

resource relayAddresses 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!empty(webhookRelayUrls)) {
  parent: vault
  name: 'webhook-relay-urls'
  properties: {
    value: webhookRelayUrls
  }
}

output name string = vault.name
output uri string = vault.properties.vaultUri
