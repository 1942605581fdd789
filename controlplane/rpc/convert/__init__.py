"""Pure conversions between the domain's values and the messages of `lineside.v1`, one module per resource."""
