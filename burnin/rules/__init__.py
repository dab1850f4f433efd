"""From readings to findings: what was measured is here compared with what a healthy node shows."""
