"""Months of a scene → buildings that keep their Id, with their first and last month."""
