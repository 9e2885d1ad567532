"""What Dynamo's own releases decide, beside what we decide: run in an environment of their own."""
