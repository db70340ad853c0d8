"""Migrations of the database; a list that only grows."""
