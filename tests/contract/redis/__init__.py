"""The virtual connector over Redis: a real server, and the actuator of Dynamo's proposal played by the test."""
