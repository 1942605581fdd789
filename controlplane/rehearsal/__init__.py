"""Rehearsals: a planned rollout, played on a copy of the inventory under stated failures. No store, no clock; what is
drawn comes from an injected random.Random, so a seed gives one play."""
