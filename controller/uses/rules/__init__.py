"""What must hold for each entry of evidence: one rule a function, registered in `entry_checks`."""
