"""Checks of what a run needs from its surroundings, and the commands that mend what is broken."""
