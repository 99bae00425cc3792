"""Contracts: what travels between steps, and on what two of them must agree."""
