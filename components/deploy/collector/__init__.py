"""Collector: keeps the payload log of model servers, so that it can be read again."""
