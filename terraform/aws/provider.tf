# How the plugin asks EC2. Beside the modules, not in them: a module that configures its provider
# cannot be configured by its caller. tango_cloud adds this file to the one that it applies.
provider "aws" {
  # The plugin takes a lack of capacity for a passing fault and tries 25 times, with growing waits: 11
  # tries alone take 95 s. With 7 it gives up after 6 s, and the next offer is tried; calls that are
  # throttled wait longer, about a minute. AWS_MAX_ATTEMPTS does not do this, the plugin has its own.
  max_retries = 7
}
