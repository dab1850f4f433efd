"""What a workload file may say, checked before anything is touched."""
