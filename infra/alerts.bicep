// Mails somebody when a person has to look. The event names are those of the app's log lines.

param location string
param tags object
param workspaceId string
param email string

var rules = [
  {
    name: 'cosell-deal-needs-a-person'
    title: 'A deal could not be synchronized'
    text: 'GET /api/health names the deals, the reasons and the next steps.'
    query: 'AppTraces | where Message startswith "sync.failed"'
  }
  {
    name: 'cosell-poison-message'
    title: 'A message was given up'
    text: 'A message failed every attempt and was recorded as a failure; search the log for its correlation id.'
    query: 'AppTraces | where Message startswith "sync.given_up" or Message startswith "sync.unreadable_message"'
  }
  {
    name: 'cosell-invocation-failed'
    title: 'A function failed'
    text: 'Look at the failures in Application Insights. Refused calls to the webhook (4xx) are not counted.'
    query: 'AppRequests | where Success == false and not(ResultCode startswith "4")'
  }
  {
    name: 'cosell-error-logged'
    title: 'The app logged an error'
    text: 'A setting is wrong, the webhook registration is not ours, or an event could not be stored: the line says which.'
    query: 'AppTraces | where SeverityLevel >= 3 and not(Message startswith "sync.")'
  }
]

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: 'cosell-people'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'cosell'
    emailReceivers: [
      {
        name: 'operator'
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

resource alerts 'Microsoft.Insights/scheduledQueryRules@2022-06-15' = [for rule in rules: {
  name: rule.name
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: rule.title
    description: rule.text
    enabled: true
    severity: 2
    scopes: [workspaceId]
    // The tables appear with the first log line, after this rule.
    skipQueryValidation: true
    evaluationFrequency: 'PT15M'
    windowSize: 'PT15M'
    autoMitigate: false
    muteActionsDuration: 'PT1H'
    criteria: {
      allOf: [
        {
          query: rule.query
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
          failingPeriods: {
            numberOfEvaluationPeriods: 1
            minFailingPeriodsToAlert: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: [people.id]
    }
  }
}]
