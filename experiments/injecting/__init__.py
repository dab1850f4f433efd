"""The one way in which anything is hit: with permission, within bounds, undone whatever happens."""
