"""`make bench-soak`: whether a long training, and a long-lived model server, stay as they began."""
