"""When frames come and which bring a new picture: holes, repeats and the rate of what is new."""
