"""What an agent decides, pure: desired and observed caps to actions, dead-man, cgroup text to pod."""
