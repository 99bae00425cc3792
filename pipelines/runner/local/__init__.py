"""Local: a run on this machine, in a folder of its own, shown while it goes on and told on a page in the end."""
