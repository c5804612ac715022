import KruxCLI

await KruxOSCommand.start()
