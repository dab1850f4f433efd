"""The network stage: which hosts exchange data with which, and what slowness says about whom."""
