"""Judging history and pushes: the walk, the audits of each branch, and what they add up to."""
