"""What lies in training: long tails, wrong labels, attributes. Each is a transformation of a data set."""
