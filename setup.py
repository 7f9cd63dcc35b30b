__import__("setuptools").setup()  # all of it is in setup.cfg
