// What the pack's scripts use of ComfyUI's frontend, written down from its public behaviour. Nodes differ
// from version to version, and from extension to extension: they are anything.

export interface Extension {
  name: string;
  init?: () => void;
  nodeCreated?: (node: any) => void;
  afterConfigureGraph?: () => void;
  beforeRegisterNodeDef?: (type: unknown, definition: any) => void;
}

export const app: {
  canvas: any;
  graph: any;
  rootGraph?: any; // with subgraphs; graph is then the one on show
  nodeOutputs?: Record<string, any>;
  nodePreviewImages?: Record<string | number, string[]>;
  registerExtension(extension: Extension): void;
  ui: { settings: { getSettingValue(id: string): any } };
};
