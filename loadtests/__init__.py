"""Drive prompt traffic at inference endpoints and write down what came back, and when."""
