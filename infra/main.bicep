// Everything the app needs in Azure, in a resource group of its own. What an admin decides is a parameter here;
// main.parameters.json fills the parameters from the azd environment (`azd env set NAME value`).
targetScope = 'subscription'

@minLength(1)
@maxLength(40)
@description('Name of the azd environment, for example prod. Names and tags of all resources follow from it.')
param environmentName string

@minLength(1)
@description('Azure region; it must offer Flex Consumption: az functionapp list-flexconsumption-locations')
@metadata({ azd: { type: 'location' } })
param location string

@description('Object id of the person or pipeline that deploys: may put secrets into the vault and run the admin commands. Empty: nobody but the app.')
param principalId string = ''

@allowed(['User', 'ServicePrincipal', 'Group'])
@description('What principalId is.')
param principalType string = 'User'

// ---- Partner Center

@description('Entra tenant id of the Partner Center account.')
param partnerCenterTenantId string

@description('Application (client) id of the app registration that the Referrals admin consented to.')
param partnerCenterClientId string

@secure()
@description('A client secret of that app registration. Empty: the vault keeps the secret it has (partner-center-client-secret).')
param partnerCenterClientSecret string = ''

@secure()
@description('The refresh token from the consent; later ones are kept by the app itself. Empty: the vault keeps the one it has (partner-center-first-refresh-token).')
param partnerCenterRefreshToken string = ''

@secure()
@description('Public address of webhook_receiver with its function key, known after the first deployment: https://<app>.azurewebsites.net/api/webhook_receiver?code=<key>')
param webhookUrl string = ''

@description('true: the daily check takes the webhook registration back when another address replaced ours.')
param webhookTakeBack bool = false

@secure()
@description('Addresses, comma separated, that every genuine call of Partner Center is passed on to: the tools that listened before. They hold keys. Empty: none.')
param webhookRelayUrls string = ''

@description('true: headers and body of genuine calls are kept for a day, for the first contact with the live service.')
param captureEvents bool = false

// ---- CRM

@allowed(['dynamics365', 'salesforce'])
@description('Which CRM holds the opportunities. Only the settings of the chosen one are set.')
param crm string = 'dynamics365'

@description('Path of your own field map, for example /home/site/wwwroot/mappings/ours.toml. Empty: the shipped map of the CRM.')
param mappingFile string = ''

@description('ISO code of the one currency of a CRM that keeps none with an amount: a Salesforce org without multiple currencies. Otherwise empty.')
param crmCurrency string = ''

@description('Address of the Dynamics 365 environment: https://<org>.crm.dynamics.com')
param dynamics365Url string = ''

@description('Entra tenant id of the Dynamics 365 environment; needed with dynamics365ClientId only.')
param dynamics365TenantId string = ''

@description('Application (client) id of an app registration behind the application user. Empty: the managed identity of the app signs in, and there is no secret to renew.')
param dynamics365ClientId string = ''

@secure()
@description('A client secret of dynamics365ClientId. Empty: the vault keeps the secret it has (dynamics365-client-secret).')
param dynamics365ClientSecret string = ''

@description('My Domain address of the Salesforce org: https://<domain>.my.salesforce.com')
param salesforceUrl string = ''

@description('Consumer Key of the External Client App in Salesforce.')
param salesforceClientId string = ''

@secure()
@description('Consumer Secret of that app. Empty: the vault keeps the secret it has (salesforce-client-secret).')
param salesforceClientSecret string = ''

@description('Username of the integration user, to sign in with a certificate (JWT bearer flow). Empty: the Consumer Secret signs in (client credentials flow).')
param salesforceUsername string = ''

@secure()
@description('PEM private key of that certificate; needed with salesforceUsername only. Empty: the vault keeps the key it has (salesforce-private-key).')
param salesforcePrivateKey string = ''

// ---- schedules: NCRONTAB with seconds, UTC. https://learn.microsoft.com/azure/azure-functions/functions-bindings-timer

@description('When the CRM is asked for changes. Empty: every minute.')
param crmPollSchedule string = ''

@description('When Partner Center is asked for what events missed. Empty: every five minutes.')
param sweepSchedule string = ''

@description('When every deal is compared on both sides. Empty: nightly at 01:47.')
param fullSweepSchedule string = ''

@description('When the webhook registration is checked. Empty: daily at 05:17.')
param registrationCheckSchedule string = ''

@description('When audit entries that are too old are taken away. Empty: daily at 03:41.')
param auditRetentionSchedule string = ''

// ---- operation

@minValue(0)
@maxValue(36500)
@description('Days that the audit of all deals is kept. 0: for ever.')
param auditRetentionDays int = 400

@description('Who is mailed when messages are given up, functions fail or errors are logged. Empty: no alert rules.')
param alertEmail string = ''

@minValue(0)
@description('Instances kept warm for HTTP. 0: a webhook after a quiet time waits for a cold start; 1 costs a standing charge.')
param alwaysReadyHttpInstances int = 0

@allowed([512, 2048, 4096])
@description('Memory of one instance, in MB.')
param instanceMemoryMB int = 2048

@minValue(40)
@maxValue(1000)
@description('Upper limit of instances.')
param maximumInstanceCount int = 40

@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'])
@description('Redundancy of the storage account, which holds the state and the audit of all deals.')
param storageSku string = 'Standard_LRS'

@description('Any further app settings by name (docs/configuration.md).')
param extraSettings object = {}

var token = toLower(uniqueString(subscription().id, environmentName, location))
var tags = { 'azd-env-name': environmentName }

// At the time of a first deployment some secrets are not in the vault yet: the app says so by name (GET /api/health).
var secretReference = '@Microsoft.KeyVault(SecretUri=${keyVault.outputs.uri}secrets/'

var partnerCenterSettings = {
  PARTNER_CENTER_TENANT_ID: partnerCenterTenantId
  PARTNER_CENTER_CLIENT_ID: partnerCenterClientId
  PARTNER_CENTER_CLIENT_SECRET: '${secretReference}partner-center-client-secret)'
  PARTNER_CENTER_REFRESH_TOKEN: '${secretReference}partner-center-first-refresh-token)'
  PARTNER_CENTER_TOKEN_VAULT_URL: keyVault.outputs.uri
  WEBHOOK_TAKE_BACK: string(webhookTakeBack)
  CAPTURE_EVENTS: string(captureEvents)
  AUDIT_RETENTION_DAYS: string(auditRetentionDays)
}

var webhookSettings = empty(webhookUrl) ? {} : {
  WEBHOOK_URL: '${secretReference}webhook-url)'
}

var relaySettings = empty(webhookRelayUrls) ? {} : {
  WEBHOOK_RELAY_URLS: '${secretReference}webhook-relay-urls)'
}

var crmSettings = {
  CRM: crm
  MAPPING_FILE: mappingFile
  CRM_CURRENCY: crmCurrency
}

var dynamics365Settings = empty(dynamics365ClientId) ? {
  DYNAMICS365_URL: dynamics365Url
  DYNAMICS365_CLIENT_ID: roles.outputs.clientId
} : {
  DYNAMICS365_URL: dynamics365Url
  DYNAMICS365_TENANT_ID: dynamics365TenantId
  DYNAMICS365_CLIENT_ID: dynamics365ClientId
  DYNAMICS365_CLIENT_SECRET: '${secretReference}dynamics365-client-secret)'
}

var salesforceSettings = empty(salesforceUsername) ? {
  SALESFORCE_URL: salesforceUrl
  SALESFORCE_CLIENT_ID: salesforceClientId
  SALESFORCE_CLIENT_SECRET: '${secretReference}salesforce-client-secret)'
} : {
  SALESFORCE_URL: salesforceUrl
  SALESFORCE_CLIENT_ID: salesforceClientId
  SALESFORCE_USERNAME: salesforceUsername
  SALESFORCE_PRIVATE_KEY: '${secretReference}salesforce-private-key)'
}

var settingsByCrm = {
  dynamics365: dynamics365Settings
  salesforce: salesforceSettings
}

var scheduleSettings = {
  CRM_POLL_SCHEDULE: crmPollSchedule
  SWEEP_SCHEDULE: sweepSchedule
  FULL_SWEEP_SCHEDULE: fullSweepSchedule
  REGISTRATION_CHECK_SCHEDULE: registrationCheckSchedule
  AUDIT_RETENTION_SCHEDULE: auditRetentionSchedule
}

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: 'rg-cosell-${environmentName}'
  location: location
  tags: tags
}

module storage 'storage.bicep' = {
  name: 'storage'
  scope: group
  params: {
    name: 'st${token}'
    location: location
    tags: tags
    sku: storageSku
  }
}

module keyVault 'keyvault.bicep' = {
  name: 'keyvault'
  scope: group
  params: {
    name: 'kv-${token}'
    location: location
    tags: tags
    partnerCenterClientSecret: partnerCenterClientSecret
    partnerCenterRefreshToken: partnerCenterRefreshToken
    dynamics365ClientSecret: dynamics365ClientSecret
    salesforceClientSecret: salesforceClientSecret
    salesforcePrivateKey: salesforcePrivateKey
    webhookUrl: webhookUrl
    webhookRelayUrls: webhookRelayUrls
  }
}

module monitoring 'monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    name: 'appi-${token}'
    workspaceName: 'log-${token}'
    location: location
    tags: tags
  }
}

module roles 'roles.bicep' = {
  name: 'roles'
  scope: group
  params: {
    identityName: 'id-${token}'
    location: location
    tags: tags
    storageName: storage.outputs.name
    vaultName: keyVault.outputs.name
    appInsightsName: monitoring.outputs.name
    operatorId: principalId
    operatorType: principalType
  }
}

module functions 'functions.bicep' = {
  name: 'functions'
  scope: group
  params: {
    name: 'func-${token}'
    planName: 'plan-${token}'
    location: location
    tags: tags
    identityId: roles.outputs.id
    identityClientId: roles.outputs.clientId
    storageName: storage.outputs.name
    packageContainerUrl: storage.outputs.packageContainerUrl
    appInsightsConnectionString: monitoring.outputs.connectionString
    alwaysReadyHttpInstances: alwaysReadyHttpInstances
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    settings: union(partnerCenterSettings, webhookSettings, relaySettings, crmSettings, settingsByCrm[crm], scheduleSettings, extraSettings)
  }
}

module alerts 'alerts.bicep' = if (!empty(alertEmail)) {
  name: 'alerts'
  scope: group
  params: {
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
    email: alertEmail
  }
}

// azd keeps these in the environment: azd env get-values
output AZURE_LOCATION string = location
output AZURE_RESOURCE_GROUP string = group.name
output AZURE_FUNCTION_NAME string = functions.outputs.name
output AZURE_KEY_VAULT_NAME string = keyVault.outputs.name
output AZURE_STORAGE_ACCOUNT_NAME string = storage.outputs.name
output WEBHOOK_ADDRESS string = 'https://${functions.outputs.hostName}/api/webhook_receiver'
output MANAGED_IDENTITY_CLIENT_ID string = roles.outputs.clientId
