"""Tracks of scenes → what was built when: a layer, a table, figures."""
