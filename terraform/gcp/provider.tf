# How the plugin asks Compute Engine. Beside the modules, not in them: a module that configures its
# provider cannot be configured by its caller. tango_cloud adds this file to the one that it applies.
provider "google" {
  # Our labels and no others.
  add_terraform_attribution_label = false

  # How often a running operation is asked for. The plugin's own 10 s are half of what a machine
  # takes to be made; 50 machines that are asked for every 4 s stay below 1,500 requests a minute.
  poll_interval = "4s"
}
