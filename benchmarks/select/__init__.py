"""How often select decides wrongly."""
