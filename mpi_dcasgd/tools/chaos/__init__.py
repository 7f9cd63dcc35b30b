"""Faults at random moments of real launches, and checks of what they leave behind."""
