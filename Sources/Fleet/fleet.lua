#!lua name=fleet
redis.register_function('fleet_version', function() return 1 end)
