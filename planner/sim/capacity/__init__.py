"""How many GPUs and watts a load needs: runs of the plant on clusters of many sizes, and their Pareto frontier."""
