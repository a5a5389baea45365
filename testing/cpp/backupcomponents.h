// BackupComponents is the requestor's object.
#pragma once

#include <windows.h>

#include <vsbackup.h>

IVssBackupComponents *newBackupComponents();
