"""Rows of the tables, whatever their type."""
