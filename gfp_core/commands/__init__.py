"""What the commands of ``gfp`` do; imported only when one of them is called."""
