"""Report: how every HTML artifact looks."""
