"""What the pages tell a reader to do works."""
