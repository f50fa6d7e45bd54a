// The Function app on Flex Consumption: plan, site, settings.
// https://learn.microsoft.com/azure/azure-functions/flex-consumption-plan

param name string
param planName string
param location string
param tags object
param identityId string
param identityClientId string
param storageName string
param packageContainerUrl string
param appInsightsConnectionString string
param alwaysReadyHttpInstances int
param instanceMemoryMB int
param maximumInstanceCount int

@description('The app settings of the product by name; those of the platform are added here.')
param settings object

// A Python instance takes one HTTP request at a time unless told otherwise. Ours wait for storage most of the time.
// https://learn.microsoft.com/azure/azure-functions/functions-concurrency
var requestsPerInstance = 16

var platformSettings = {
  AzureWebJobsStorage__accountName: storageName
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: identityClientId
  // Which identity the Azure packages in the app sign in with.
  AZURE_CLIENT_ID: identityClientId
  APPLICATIONINSIGHTS_CONNECTION_STRING: appInsightsConnectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
  // Our functions are no coroutines: without a thread each, they would wait for one another.
  PYTHON_THREADPOOL_THREAD_COUNT: string(requestsPerInstance)
}

resource plan 'Microsoft.Web/serverfarms@2024-04-01' = {
  name: planName
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
  }
}

resource app 'Microsoft.Web/sites@2024-04-01' = {
  name: name
  location: location
  tags: union(tags, { 'azd-service-name': 'sync' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    keyVaultReferenceIdentity: identityId
    siteConfig: {
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      ftpsState: 'Disabled'
    }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: packageContainerUrl
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: {
        name: 'python'
        version: '3.12'
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
        alwaysReady: alwaysReadyHttpInstances == 0 ? [] : [
          {
            name: 'http'
            instanceCount: alwaysReadyHttpInstances
          }
        ]
        triggers: {
          http: {
            perInstanceConcurrency: requestsPerInstance
          }
        }
      }
    }
  }
}

resource appSettings 'Microsoft.Web/sites/config@2024-04-01' = {
  parent: app
  name: 'appsettings'
  properties: union(platformSettings, settings)
}

// Deployments sign in with Entra ID; there is no user name and password.
resource noBasicSignIn 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-04-01' = [for way in ['scm', 'ftp']: {
  parent: app
  name: way
  properties: {
    allow: false
  }
}]

output name string = app.name
output hostName string = app.properties.defaultHostName
