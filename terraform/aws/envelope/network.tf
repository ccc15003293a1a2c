# The network: an existing one, or one that is made, with a subnet in each zone.

data "aws_availability_zones" "available" {
  count = var.network == null && length(var.zones) == 0 ? 1 : 0
  state = "available"

  # Neither local zones nor wavelength zones.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

data "aws_subnet" "existing" {
  for_each = local.existing_subnets
  id       = each.key
}

locals {
  existing_subnets = toset(try(var.network.subnet_ids, []))

  made_zones = (
    var.network != null ? [] :
    length(var.zones) > 0 ? var.zones :
    [for zone in data.aws_availability_zones.available[0].names : zone if can(regex("[a-h]$", zone))]
  )

  # By the zone's letter, not its place in the list: a zone that opens tomorrow moves no subnet.
  made_cidrs = {
    for zone in local.made_zones :
    zone => cidrsubnet(var.network_cidr, 3, index(["a", "b", "c", "d", "e", "f", "g", "h"], substr(zone, -1, 1)))
  }

  existing_by_zone = {
    for id in try(var.network.subnet_ids, []) :
    data.aws_subnet.existing[id].availability_zone => id...
    if length(var.zones) == 0 || contains(var.zones, data.aws_subnet.existing[id].availability_zone)
  }

  vpc_id = var.network == null ? aws_vpc.made[0].id : var.network.vpc_id
  subnets = (
    var.network == null
    ? { for zone, subnet in aws_subnet.made : zone => subnet.id }
    : { for zone, ids in local.existing_by_zone : zone => ids[0] }
  )
}

resource "aws_vpc" "made" {
  count      = var.network == null ? 1 : 0
  cidr_block = var.network_cidr
  tags       = local.tags
}

resource "aws_subnet" "made" {
  for_each          = local.made_cidrs
  vpc_id            = aws_vpc.made[0].id
  availability_zone = each.key
  cidr_block        = each.value
  tags              = merge(local.tags, { Name = "${local.name}-${each.key}" })
}

resource "aws_internet_gateway" "made" {
  count  = var.network == null && var.public_address ? 1 : 0
  vpc_id = aws_vpc.made[0].id
  tags   = local.tags
}

resource "aws_route_table" "made" {
  count  = length(aws_internet_gateway.made)
  vpc_id = aws_vpc.made[0].id
  tags   = local.tags

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.made[0].id
  }
}

resource "aws_route_table_association" "made" {
  for_each       = var.public_address ? aws_subnet.made : {}
  subnet_id      = each.value.id
  route_table_id = aws_route_table.made[0].id
}
