"""What must exist in a Dynamics 365 environment before deals can be synchronized: columns.json, and what creates it."""
