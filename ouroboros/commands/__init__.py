"""The commands, by what they are about; each is a thin shell round a module that can be tested."""
