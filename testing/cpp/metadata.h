// Metadata is what IVssBackupComponents hands out about one writer, from its plan in the config.
#pragma once

#include <windows.h>

#include <vsbackup.h>

#include <memory>

#include "config.h"

// newWriterMetadata has one reference, which the receiver releases; config must hold writer.
IVssExamineWriterMetadataEx *newWriterMetadata(std::shared_ptr<const Config> config, const WriterPlan &writer);
