"""What a load is made of: the schedule of arrivals, the prompts, the tasks whose answers are known."""
