"""The processes of one load: alone, or a master and its workers; what they report and record."""
