"""What each command does. ``plain_calls`` declares those that are one XenAPI call; the others have code."""
