return await PushRelay.Cli.RelayCommands.RunAsync(args, Console.Error);
