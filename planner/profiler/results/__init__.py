"""Files that a profiling run leaves: profiles in Dynamo's forms, plots, report."""
