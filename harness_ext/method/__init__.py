"""What a plugin author implements (pruners, allocations, calibrations, statistics), and the arithmetic they may use."""
