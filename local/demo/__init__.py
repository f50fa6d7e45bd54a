"""`python -m local.demo`: the product at work between a simulated Partner Center and each simulated CRM in turn.

`story` says what people do and what must come of it, `world` is how they act and look, `traffic` what requests were
for, `play` runs and judges it.
"""
