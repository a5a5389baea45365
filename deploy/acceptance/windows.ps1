<#
.SYNOPSIS
  Runs Stillframe's agent against this real Windows and writes down what it saw.

.DESCRIPTION
  No real Windows has run the agent before its developers publish one of these records: docs/windows-agent.md lists the
  assumptions that each step checks. Run it as an administrator on a test machine. It freezes the machine's applications
  for seconds at a time and removes what it installed. It deletes no shadow copy and restarts no service of anybody else.

.PARAMETER Agent
  The agent to test, stillframe-agent.exe.

.PARAMETER Record
  Where the record goes, as JSON. It exists also when a step failed.

.PARAMETER Cycles
  How many freezes the leak test makes. 64 sessions are what a writer keeps, so fewer than 65 prove nothing.

.EXAMPLE
  powershell -ExecutionPolicy Bypass -File windows.ps1 -Agent .\stillframe-agent.exe -Record record.json
#>
[CmdletBinding()]
param(
  [Parameter(Mandatory = $true)] [string] $Agent,
  [string] $Record = "stillframe-acceptance.json",
  [ValidateRange(1, 1000)] [int] $Cycles = 70
)

Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

$steps = New-Object System.Collections.ArrayList
$began = Get-Date
$provider = '1ff4bafb-1cad-4364-8592-221443e14ef6'
$class = 'c9bbb1b2-2fae-46ce-ad73-ba48df4715d1'

# Step runs one step, and writes down how it went: a step that fails does not keep the others from running.
function Step([string] $name, [string] $assumption, [scriptblock] $do) {
  $clock = [System.Diagnostics.Stopwatch]::StartNew()
  $row = [ordered]@{ name = $name; assumption = $assumption; ok = $false; seconds = 0.0; seen = $null; error = $null }
  try {
    $row.seen = & $do
    $row.ok = $true
  } catch {
    $row.error = $_.Exception.Message
  }
  $row.seconds = [math]::Round($clock.Elapsed.TotalSeconds, 3)
  [void] $steps.Add($row)
  $word = 'FAIL'; if ($row.ok) { $word = 'ok  ' }
  Write-Host ("{0} {1} ({2} s) {3}" -f $word, $name, $row.seconds, $row.error)
}

# Invoke-Agent runs the agent and returns its standard output; another status than the wanted one is an error.
function Invoke-Agent([string[]] $arguments, [int[]] $statuses = @(0)) {
  $out = & $exe @arguments 2>&1 | Out-String
  if ($statuses -notcontains $LASTEXITCODE) { throw "stillframe-agent $($arguments -join ' ') ended with $LASTEXITCODE`n$out" }
  return $out
}

function Get-Vssadmin([string] $what) {
  $out = & vssadmin.exe list $what 2>&1 | Out-String
  if ($LASTEXITCODE -ne 0) { throw "vssadmin list $what ended with $LASTEXITCODE`n$out" }
  return $out
}

# Get-WriterStates maps each writer to its state: instance ids change from start to start, so the name has to do.
function Get-WriterStates() {
  $states = [ordered]@{}; $name = ''
  foreach ($line in (Get-Vssadmin 'writers') -split "`r?`n") {
    if ($line -match "'(.+)'") { $name = $Matches[1] }
    if ($name -and $line -match '\[(\d+)\]') { $states[$name] = [int] $Matches[1]; $name = '' }
  }
  if ($states.Count -eq 0) { throw 'vssadmin lists no writer' }
  return $states
}

function Get-UnstableWriters() { (Get-WriterStates).GetEnumerator() | Where-Object { $_.Value -ne 1 } | ForEach-Object { "$($_.Key) [$($_.Value)]" } }

function Get-VssEvents([datetime] $since) {
  $filter = @{ LogName = 'Application', 'System'; StartTime = $since; ProviderName = 'VSS', 'volsnap' }
  try { $events = Get-WinEvent -FilterHashtable $filter -MaxEvents 500 } catch [Exception] {
    if ($_.FullyQualifiedErrorId -like 'NoMatchingEventsFound*') { return @() }
    throw
  }
  return @($events | ForEach-Object { [ordered]@{ provider = $_.ProviderName; id = $_.Id; at = $_.TimeCreated.ToString('o'); text = $_.Message } })
}

function Test-Freeze([string] $mode, [double] $seconds) {
  $text = Invoke-Agent @('selftest', '--mode', $mode, '--hold', ('{0}s' -f $seconds.ToString([cultureinfo]::InvariantCulture)), '--json')
  $report = $text | ConvertFrom-Json
  if ($report.status -ne 0) { throw "the self-test says status $($report.status): $text" }
  return $report
}

# Start-FileWriter writes a file every 10 ms and notes the longest time that one write took.
function Start-FileWriter([string] $path) {
  Start-Job -ArgumentList $path -ScriptBlock {
    param($path)
    $longest = 0.0; $clock = [System.Diagnostics.Stopwatch]::StartNew()
    $file = New-Object IO.FileStream($path, 'Create', 'Write', 'Read', 4096, [IO.FileOptions]::WriteThrough)
    try {
      while ($clock.Elapsed.TotalSeconds -lt 30) {
        $one = [System.Diagnostics.Stopwatch]::StartNew()
        $file.WriteByte(1); $file.Flush($true)
        $longest = [math]::Max($longest, $one.Elapsed.TotalSeconds)
        Start-Sleep -Milliseconds 10
      }
    } finally { $file.Dispose() }
    $longest
  }
}

$principal = New-Object Security.Principal.WindowsPrincipal([Security.Principal.WindowsIdentity]::GetCurrent())
if (-not $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)) {
  throw 'this needs an elevated administrator: start PowerShell with "Run as administrator"'
}
if (-not (Test-Path -LiteralPath $Agent)) { throw "there is no agent at $Agent" }

$folder = Join-Path $env:SystemRoot ('Stillframe\acceptance-' + [guid]::NewGuid().ToString('N'))
[void] (New-Item -ItemType Directory -Path $folder)
$exe = Join-Path $folder 'stillframe-agent.exe'
Copy-Item -LiteralPath $Agent -Destination $exe

$before = [ordered]@{}
try {
  Step 'before' 'writers, providers and shadow copies can be listed, and every writer is stable' {
    $before.providers = Get-Vssadmin 'providers'
    $before.shadows = (& vssadmin.exe list shadows 2>&1 | Out-String)
    $bad = @(Get-UnstableWriters)
    if ($bad.Count -gt 0) { throw "not stable before anything was done: $($bad -join ', ')" }
    Get-WriterStates
  }
  Step 'inventory' 'the agent sees services, token, policies, providers and volumes as Windows does' {
    Invoke-Agent @('inventory', '--json') | ConvertFrom-Json
  }
  Step 'writers' 'the agent freezes every writer that Windows lists' {
    $seen = Test-Freeze 'io' 0.1
    $missing = @((Get-WriterStates).Keys | Where-Object { @($seen.writers | ForEach-Object { $_.name }) -notcontains $_ })
    if ($missing.Count -gt 0) { throw "the agent does not see the writers $($missing -join ', ')" }
    $seen
  }
  Step 'registration' 'vssvc accepts a provider that a service hosts (AppID LocalService), and lists it' {
    # The self-test registers, activates its class through COM and removes it all: the provider must not stay listed.
    Test-Freeze 'io' 0.1
    if ((Get-Vssadmin 'providers') -match $provider) { throw 'the provider is still listed after the self-test' }
  }
  foreach ($hold in 0.1, 1, 5, 8) {
    Step "io $hold s" 'a Go program can hold inside CommitSnapshots: no deadlock while file-system writes stand still' { Test-Freeze 'io' $hold }
  }
  foreach ($hold in 1, 10, 17) {
    Step "writer $hold s" 'a Go program can hold inside PreCommitSnapshots for as long as a snapshot may take' { Test-Freeze 'writer' $hold }
  }
  Step 'write stall' 'the writes of another program stand still for as long as the agent says, and not longer' {
    $path = Join-Path $folder 'writer.bin'
    $job = Start-FileWriter $path
    Start-Sleep -Seconds 2
    $checks = (Test-Freeze 'io' 3).checks
    $longest = $job | Wait-Job -Timeout 60 | Receive-Job
    Remove-Job $job -Force
    if ($longest -lt 2.5 -or $longest -gt 9) { throw "the longest write took $longest s, the hold was 3 s" }
    [ordered]@{ longest_write_seconds = $longest; checks = $checks }
  }
  Step 'killed while held' 'a dead agent frees its writers, and Windows takes its provider for gone' {
    $process = Start-Process -FilePath $exe -ArgumentList 'selftest', '--mode', 'io', '--hold', '8s' -PassThru -WindowStyle Hidden
    Start-Sleep -Seconds 6
    Stop-Process -Id $process.Id -Force
    $deadline = (Get-Date).AddSeconds(90)
    do { Start-Sleep -Seconds 2; $bad = @(Get-UnstableWriters) } while ($bad.Count -gt 0 -and (Get-Date) -lt $deadline)
    [void] (Invoke-Agent @('thaw') @(0, 9))
    if ($bad.Count -gt 0) { throw "90 s later not stable: $($bad -join ', ')" }
  }
  Step 'another requestor' 'a shadow copy of another product never gets our provider' {
    if (-not (Get-Command diskshadow.exe -ErrorAction SilentlyContinue)) { return 'diskshadow.exe is not on this edition: not checked' }
    $script = Join-Path $folder 'other.dsh'
    Set-Content -LiteralPath $script -Encoding Ascii -Value @('set context volatile', "add volume $env:SystemDrive", 'create', 'list shadows all')
    $out = & diskshadow.exe /s $script 2>&1 | Out-String
    if ($out -match $provider) { throw "it got our provider:`n$out" }
    $out
  }
  Step "$Cycles cycles" 'every session with a writer is ended: no event 12289, no 8193, 8194 or 12293' {
    $from = Get-Date
    for ($i = 0; $i -lt $Cycles; $i++) {
      $mode = 'io'; if ($i % 2) { $mode = 'writer' }
      [void] (Test-Freeze $mode 0.1)
    }
    $bad = @(Get-VssEvents $from | Where-Object { @(12289, 8193, 8194, 12293) -contains $_.id })
    if ($bad.Count -gt 0) { throw ($bad | ConvertTo-Json -Depth 4) }
    [ordered]@{ cycles = $Cycles }
  }
  Step 'applications' 'Exchange and SQL Server, where they are, were frozen and are stable' {
    $states = Get-WriterStates
    $found = @($states.Keys | Where-Object { $_ -match 'Exchange|SqlServer|NTDS' })
    if ($found.Count -eq 0) { return 'neither Exchange, SQL Server nor Active Directory is here: not checked' }
    $sql = @()
    if ($states.Contains('SqlServerWriter')) {
      $sql = @(Get-WinEvent -FilterHashtable @{ LogName = 'Application'; StartTime = $began; Id = 3197, 3198 } -ErrorAction SilentlyContinue)
      if ($sql.Count -eq 0) { throw 'SQL Server logged neither 3197 nor 3198 although it was frozen' }
    }
    [ordered]@{ writers = $found; sql_events = $sql.Count }
  }
  Step 'install, uninstall' 'one firewall rule while it serves; nothing stays behind: no service, class, provider or firewall rule' {
    [void] (Invoke-Agent @('install', '--peer', ('1' * 64), '--port', '0', '--allow', '192.0.2.1'))
    $rule = @(Get-NetFirewallRule -DisplayName 'Stillframe-persistent' -ErrorAction SilentlyContinue)
    if ($rule.Count -ne 1) { throw "the firewall has $($rule.Count) rules for the agent that serves, not one" }
    $from = ($rule | Get-NetFirewallAddressFilter).RemoteAddress
    $of = ($rule | Get-NetFirewallApplicationFilter).Program
    if ($from -ne '192.0.2.1' -or $of -ne $exe) { throw "the rule lets $from reach $of" }
    [void] (Invoke-Agent @('uninstall'))
    $left = @()
    if (Get-Service -Name 'Stillframe*' -ErrorAction SilentlyContinue) { $left += 'a service' }
    if (Test-Path -LiteralPath "HKLM:\SOFTWARE\Classes\CLSID\{$class}") { $left += 'the COM class' }
    if ((Get-Vssadmin 'providers') -match $provider) { $left += 'the provider' }
    if (Get-NetFirewallRule -DisplayName 'Stillframe*' -ErrorAction SilentlyContinue) { $left += 'a firewall rule' }
    if ($left.Count -gt 0) { throw "left behind: $($left -join ', ')" }
  }
  Step 'after' 'providers and shadow copies are as before, and every writer is stable' {
    $bad = @(Get-UnstableWriters)
    if ($bad.Count -gt 0) { throw "not stable: $($bad -join ', ')" }
    if ((Get-Vssadmin 'providers') -ne $before.providers) { throw 'the list of providers has changed' }
    if ((& vssadmin.exe list shadows 2>&1 | Out-String) -ne $before.shadows) { throw 'the list of shadow copies has changed' }
  }
} finally {
  & $exe thaw | Out-Null
  & $exe uninstall | Out-Null
  Remove-Item -LiteralPath $folder -Recurse -Force -ErrorAction SilentlyContinue
  $os = Get-CimInstance Win32_OperatingSystem
  $failed = @($steps | Where-Object { -not $_.ok })
  [ordered]@{
    api_version   = 'stillframe/acceptance/v1'
    began_at      = $began.ToUniversalTime().ToString('o')
    windows       = [ordered]@{ caption = $os.Caption; version = $os.Version; architecture = $os.OSArchitecture }
    agent_sha256  = (Get-FileHash -LiteralPath $Agent -Algorithm SHA256).Hash.ToLowerInvariant()
    steps         = $steps
    events        = @(Get-VssEvents $began)
    failed        = $failed.Count
  } | ConvertTo-Json -Depth 8 | Set-Content -LiteralPath $Record -Encoding UTF8
  Write-Host "record: $Record"
}
if ($failed.Count -gt 0) { exit 1 }
